"""d22kit: how much do we communicate, does it arrive, and does anyone answer?

A toolkit for the D22 "Conversations" export. `sync` fetches it into Parquet snapshots, `load` opens them,
and `volume`, `delivery` and `engagement` answer the three questions on any frame.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from d22kit import charts, errors
    from d22kit.auditing import AuditReport, audit
    from d22kit.config import Endpoint
    from d22kit.extracts import ExtractReport, extract, verify
    from d22kit.loading import load, scan
    from d22kit.masking import mask
    from d22kit.questions.anomalies import anomalies
    from d22kit.questions.bounces import Explanation, bounces, explain
    from d22kit.questions.calendar import Calendar
    from d22kit.questions.classify import classify
    from d22kit.questions.compare import compare
    from d22kit.questions.delivery import backlog, delivery, time_to_last_update, worklist
    from d22kit.questions.engagement import HoursRule, contact_hours, engagement
    from d22kit.questions.profile import profile
    from d22kit.questions.volume import heatmap, share, volume
    from d22kit.reporting import report
    from d22kit.simulator import simulate
    from d22kit.snapshots import StoreStatus, VacuumReport, changes, quarantine, status, vacuum, versions
    from d22kit.syncing import SyncReport, sync

_HOME = {
    "auditing": ("AuditReport", "audit"),
    "charts": (),
    "config": ("Endpoint",),
    "errors": (),
    "extracts": ("ExtractReport", "extract", "verify"),
    "loading": ("load", "scan"),
    "masking": ("mask",),
    "questions.anomalies": ("anomalies",),
    "questions.bounces": ("Explanation", "bounces", "explain"),
    "questions.calendar": ("Calendar",),
    "questions.classify": ("classify",),
    "questions.compare": ("compare",),
    "questions.delivery": ("backlog", "delivery", "time_to_last_update", "worklist"),
    "questions.engagement": ("HoursRule", "contact_hours", "engagement"),
    "questions.profile": ("profile",),
    "questions.volume": ("heatmap", "share", "volume"),
    "reporting": ("report",),
    "simulator": ("simulate",),
    "snapshots": ("StoreStatus", "VacuumReport", "changes", "quarantine", "status", "vacuum", "versions"),
    "syncing": ("SyncReport", "sync"),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__version__ = "0.1.0"
__all__ = [
    "AuditReport",
    "Calendar",
    "Endpoint",
    "Explanation",
    "ExtractReport",
    "HoursRule",
    "StoreStatus",
    "SyncReport",
    "VacuumReport",
    "anomalies",
    "audit",
    "backlog",
    "bounces",
    "changes",
    "charts",
    "classify",
    "compare",
    "contact_hours",
    "delivery",
    "engagement",
    "errors",
    "explain",
    "extract",
    "heatmap",
    "load",
    "mask",
    "profile",
    "quarantine",
    "report",
    "scan",
    "share",
    "simulate",
    "status",
    "sync",
    "time_to_last_update",
    "vacuum",
    "verify",
    "versions",
    "volume",
    "worklist",
]


def __getattr__(name: str) -> Any:
    """Import the part that is asked for, when it is asked for."""
    if name in _MODULE:
        value = getattr(import_module(f"d22kit.{_MODULE[name]}"), name)
    elif name in __all__:
        value = import_module(f"d22kit.{name}")
    else:
        raise AttributeError(f"module 'd22kit' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
