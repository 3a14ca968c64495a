// Reads queries as the Kusto service would, with its own parser: node check.js FILE...
//
// A FILE is one query (.kql), or a workbook (.json) whose queries are all read. Placeholders are filled in as the
// deployment and the portal do. Prints each error with its file, line and text, and exits 1 where there is one.
"use strict";

const fs = require("node:fs");

require("@kusto/language-service-next/bridge.min.js");
require("@kusto/language-service-next/Kusto.Language.Bridge.min.js");

/* global Bridge, Kusto */
const { GlobalState, KustoCode } = Kusto.Language;
const { DatabaseSymbol, TableSymbol } = Kusto.Language.Symbols;

// Of Application Insights' tables only what the queries read.
const TABLES = { traces: "timestamp: datetime, message: string" };

const GLOBALS = GlobalState.Default.WithDatabase(
  new DatabaseSymbol.$ctor1("database", Object.entries(TABLES).map(([name, columns]) => TableSymbol.From(columns).WithName(name))),
);

// [where, text] of each query of the file, its placeholders filled in.
function queriesOf(file) {
  const content = fs.readFileSync(file, "utf8");
  if (!file.endsWith(".json")) return [[file, content.replaceAll("UNDETERMINED_PERCENT", "10")]];
  const items = JSON.parse(content).items;
  const parameters = items.flatMap((item) => (item.content.parameters ?? []).map((parameter) => ({ ...parameter, item })));
  const names = parameters.map((parameter) => parameter.name);
  const askers = [
    ...items.map((item) => [`${file}: ${item.name}`, item.content.query]),
    ...parameters.map((parameter) => [`${file}: ${parameter.item.name}/${parameter.name}`, parameter.query]),
  ];
  return askers
    .filter(([, query]) => query !== undefined)
    .map(([where, query]) => [where, names.reduce((text, name) => text.replaceAll(`{${name}}`, "x"), query)]);
}

// One text for each error, with the line that it is on.
function errorsOf([where, query]) {
  return Bridge.toArray(KustoCode.ParseAndAnalyze(query, GLOBALS).GetDiagnostics())
    .filter((diagnostic) => diagnostic.Severity === "Error")
    .map((diagnostic) => {
      const line = query.slice(0, diagnostic.Start).split("\n").length;
      const text = query.split("\n")[line - 1].trim();
      return `${where}:${line}: ${diagnostic.Code}: ${diagnostic.Message}\n    ${text}`;
    });
}

const queries = process.argv.slice(2).flatMap(queriesOf);
const errors = queries.flatMap(errorsOf);
for (const error of errors) console.error(error);
if (queries.length === 0) console.error("no query was given");
process.exitCode = errors.length > 0 || queries.length === 0 ? 1 : 0;
