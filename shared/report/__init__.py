"""What people and programs read: findings as a table, JSON and CSV, plans with their diffs, the catalogue in words,
what the doctor found."""

from shared.report.catalogue import controls_as_json, controls_as_text, explained_as_json, explained_as_text
from shared.report.changes import Changes, changes_as_text
from shared.report.checks import checks_as_json, checks_as_text
from shared.report.exits import exit_code, exit_code_of, exit_code_of_checks
from shared.report.lists import as_csv, as_json, csv_entries, json_entries, stream
from shared.report.order import sorted_by_place
from shared.report.plans import plans_as_text
from shared.report.table import as_table, summary

__all__ = [
    "Changes",
    "as_csv",
    "as_json",
    "as_table",
    "changes_as_text",
    "checks_as_json",
    "checks_as_text",
    "controls_as_json",
    "controls_as_text",
    "csv_entries",
    "exit_code",
    "exit_code_of",
    "exit_code_of_checks",
    "explained_as_json",
    "explained_as_text",
    "json_entries",
    "plans_as_text",
    "sorted_by_place",
    "stream",
    "summary",
]
