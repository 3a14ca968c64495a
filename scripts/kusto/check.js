// Reads queries as the Kusto service would, with its own parser: node check.js FILE...
//
// A FILE is one query (.kql), or a workbook (.json) whose queries are all read. Each is read twice: over the tables of
// events (events.json), and over traces, with the lines before it that make its tables of them, as it is deployed
// (infra/queries/parts/events.kql). A file that begins with the first of these lines is what is deployed, and is read as
// it stands. Placeholders are filled in as the deployment and the portal do. Beside what the parser finds it is an error
// to compare two types that the service does not compare, and a column with a word that it never has. A rule's query
// (.kql) gives the columns that its alert is split by, and has nothing that Azure Monitor does not take in a rule.
//
// Prints each error with its file, line and text, and exits 1 where there is one.
"use strict";

const fs = require("node:fs");
const path = require("node:path");

require("@kusto/language-service-next/bridge.min.js");
require("@kusto/language-service-next/Kusto.Language.Bridge.min.js");

/* global Bridge, Kusto */
const { GlobalState, KustoCode } = Kusto.Language;
const { DatabaseSymbol, TableSymbol } = Kusto.Language.Symbols;
const { SyntaxKind } = Kusto.Language.Syntax;

const EVENTS = JSON.parse(fs.readFileSync(path.join(__dirname, "events.json"), "utf8"));
const LINES = fs.readFileSync(path.join(__dirname, "../../infra/queries/parts/events.kql"), "utf8");
// table -> its line.
const LETS = new Map(LINES.trimEnd().split("\n").map((line) => [line.split(" ")[1], `${line}\n`]));

const EQUALITIES = new Set([SyntaxKind.EqualExpression, SyntaxKind.NotEqualExpression, SyntaxKind.EqualTildeExpression]);
const LISTS = new Set([SyntaxKind.InExpression, SyntaxKind.InCsExpression, SyntaxKind.NotInExpression, SyntaxKind.NotInCsExpression]);
const NUMBERS = new Set(["int", "long", "real", "decimal"]);

const BY_CLUSTER = fs.readFileSync(path.join(__dirname, "../../infra/queries/parts/by-cluster.kql"), "utf8");

// A table's columns as Kusto writes them; types: column -> type.
const schema = (types) => Object.entries(types).map(([name, type]) => `${name}: ${type}`).join(", ");
const typesOf = (columns) => Object.fromEntries(Object.entries(columns).map(([name, column]) => [name, column.type]));

function globals(tables) {
  const symbols = Object.entries(tables).map(([name, types]) => TableSymbol.From(schema(types)).WithName(name));
  return GlobalState.Default.WithDatabase(new DatabaseSymbol.$ctor1("database", symbols));
}

// Of Application Insights' tables only what the events are made of.
const TRACES = globals({ traces: { timestamp: "datetime", message: "string" } });
const TABLES = globals(Object.fromEntries(Object.entries(EVENTS).map(([name, columns]) => [name, typesOf(columns)])));

// column -> the words that it may have; the empty string stands for none.
const WORDS = new Map(
  Object.values(EVENTS).flatMap((columns) =>
    Object.entries(columns).filter(([, column]) => column.words).map(([name, column]) => [name, ["", ...column.words]]),
  ),
);

// [where, text] of each query of the file, its placeholders filled in.
function queriesOf(file) {
  const content = fs.readFileSync(file, "utf8");
  if (!file.endsWith(".json")) return [[file, content.replace("BY_CLUSTER\n", BY_CLUSTER).replace("UNDETERMINED_PERCENT", "10")]];
  const items = JSON.parse(content).items;
  const parameters = items.flatMap((item) => (item.content.parameters ?? []).map((parameter) => ({ ...parameter, item })));
  const names = parameters.map((parameter) => parameter.name);
  const askers = [
    ...items.map((item) => [`${file}: ${item.name}`, item.content.query]),
    ...parameters.map((parameter) => [`${file}: ${parameter.item.name}/${parameter.name}`, parameter.query]),
  ];
  return askers
    .filter(([, query]) => query !== undefined)
    .map(([where, query]) => [where, names.reduce((text, name) => text.replaceAll(`{${name}}`, "x"), query.replace("TABLES_OF_EVENTS\n", ""))]);
}

function* nodesOf(node) {
  yield node;
  for (let i = 0; i < node.ChildCount; i++) {
    const child = node.GetChild(i);
    if (child) yield* nodesOf(child);
  }
}

function comparable(left, right) {
  const [one, other] = [left, right].map((node) => (NUMBERS.has(node.ResultType?.Name) ? "number" : node.ResultType?.Name));
  return one === other || [one, other].some((type) => [undefined, "dynamic", "unknown", "error"].includes(type));
}

// [position, text] of what the parser takes and the service, or an event's class, does not.
function comparisonsOf(root) {
  const found = [];
  for (const node of nodesOf(root)) {
    let others;
    if (EQUALITIES.has(node.Kind)) others = [node.Right];
    else if (LISTS.has(node.Kind)) others = Bridge.toArray(node.Right.Expressions ?? []).map((item) => item.Element$1 ?? item);
    else continue;
    const words = WORDS.get(node.Left.ReferencedSymbol?.Name);
    for (const other of others) {
      if (!comparable(node.Left, other)) {
        found.push([other.TextStart, `a ${node.Left.ResultType.Name} is compared with a ${other.ResultType.Name}`]);
      } else if (words && typeof other.LiteralValue === "string" && !words.includes(other.LiteralValue)) {
        found.push([other.TextStart, `${node.Left.ReferencedSymbol.Name} is never "${other.LiteralValue}", but ${words.slice(1).join(", ")}`]);
      }
    }
  }
  return found;
}

// What a rule's query may not have: "Create or edit a log search alert rule" and "Optimize log search alert queries",
// Azure Monitor's documentation. `ago` takes a literal there, and a word is taken for the service's own.
const RULES_LACK = new Map([[SyntaxKind.UnionOperator, "union"], [SyntaxKind.SearchOperator, "search"]]);
const PLUGINS_LACK = new Set(["bag_unpack", "pivot", "narrow"]);
const RESERVED = "AggregatedValue";

// [position, text] of what the service takes in a query, and not in a rule's.
function unfitOf(root) {
  const found = [];
  for (const node of nodesOf(root)) {
    const operator = RULES_LACK.get(node.Kind);
    const name = node.Kind === SyntaxKind.FunctionCallExpression ? node.Name.SimpleName : undefined;
    if (operator !== undefined) {
      found.push([node.TextStart, `a rule's query takes no ${operator}`]);
    } else if (PLUGINS_LACK.has(name)) {
      found.push([node.TextStart, `a rule's query takes no ${name}()`]);
    } else if (name === "ago" && !Bridge.toArray(node.ArgumentList.Expressions).every((item) => (item.Element$1 ?? item).IsLiteral)) {
      found.push([node.TextStart, "a rule's query takes ago() of a literal only"]);
    } else if (node.Kind === SyntaxKind.TokenName && node.SimpleName === RESERVED) {
      found.push([node.TextStart, `${RESERVED} is a word of the service's own in a rule's query`]);
    }
  }
  return found;
}

// One text for each error, with the line that it is on; `before` stands before the query and has no lines of its own.
function errorsOf(where, query, known, before = "") {
  const code = KustoCode.ParseAndAnalyze(before + query, known);
  const errors = Bridge.toArray(code.GetDiagnostics())
    .filter((diagnostic) => diagnostic.Severity === "Error")
    .map((diagnostic) => [diagnostic.Start, `${diagnostic.Code}: ${diagnostic.Message}`]);
  const gives = columnsOf(code);
  if (where.endsWith(".kql") && errors.length === 0 && gives !== DIMENSIONS) {
    return [`${where}: it gives (${gives}), not (${DIMENSIONS})`];
  }
  const unfit = where.endsWith(".kql") ? unfitOf(code.Syntax) : [];
  return [...errors, ...comparisonsOf(code.Syntax), ...unfit].map(([start, message]) => {
    const at = start - before.length;
    if (at < 0) return `${where}: in the tables of events: ${message}`;
    const line = query.slice(0, at).split("\n").length;
    return `${where}:${line}: ${message}\n    ${query.split("\n")[line - 1].trim()}`;
  });
}

// What a rule's alert is split by, which must be there and be text (infra/modules/alerts.bicep).
const DIMENSIONS = ["run", "cluster", "node", "what"].map((name) => `${name}: string`).join(", ");

function columnsOf(code) {
  const columns = Bridge.toArray(code.ResultType?.Columns ?? []);
  return schema(Object.fromEntries(columns.map((column) => [column.Name, column.Type.Name])));
}

// The tables that the lines make have the columns that the queries are read over.
function differing(name, columns) {
  const [is, wanted] = [columnsOf(KustoCode.ParseAndAnalyze((LETS.get(name) ?? "") + name, TRACES)), schema(typesOf(columns))];
  return is === wanted ? [] : [`infra/queries/parts/events.kql: ${name} has (${is}), not (${wanted})`];
}

function read([where, query]) {
  if (query.startsWith([...LETS.values()][0].slice(0, 40))) return errorsOf(where, query, TRACES);
  const errors = errorsOf(where, query, TABLES);
  const lets = [...LETS].filter(([name]) => query.includes(name)).map(([, line]) => line).join("");
  return errors.length > 0 ? errors : errorsOf(where, query, TRACES, lets);
}

const queries = process.argv.slice(2).flatMap(queriesOf);
const errors = [...Object.entries(EVENTS).flatMap(([name, columns]) => differing(name, columns)), ...queries.flatMap(read)];
for (const error of errors) console.error(error);
if (queries.length === 0) console.error("no query was given");
process.exitCode = errors.length > 0 || queries.length === 0 ? 1 : 0;
