"""Runs, findings and everything else that must survive: `open_store` gives the `Store`."""

from shared.store.backend import ROLE, SCHEMA
from shared.store.copying import copy
from shared.store.opening import open_store
from shared.store.patient import patient
from shared.store.retention import Purged
from shared.store.run_ids import new_run_id
from shared.store.store import Counts, FindingPage, FindingQuery, Hold, RunPage, Store, Work

__all__ = [
    "ROLE",
    "SCHEMA",
    "Counts",
    "FindingPage",
    "FindingQuery",
    "Hold",
    "Purged",
    "RunPage",
    "Store",
    "Work",
    "copy",
    "new_run_id",
    "open_store",
    "patient",
]
