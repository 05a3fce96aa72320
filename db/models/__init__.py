"""Every table, so that one import fills the metadata."""

from db.models.access import AuditEntry, IdempotencyKey, Token
from db.models.base import Base, JsonObject
from db.models.catalog import Dataset, Node, Setting, SiteCost
from db.models.results import (
    RESULT_STATUSES,
    ROLES,
    TRIAL_STATUSES,
    Architecture,
    Artifact,
    Epoch,
    Evaluation,
    Trial,
)
from db.models.schedules import Delivery, Fire, Schedule
from db.models.searches import CLAIMABLE, COMMANDS, FINISHED_STATUSES, NOTABLE, PHASES, SEARCH_STATUSES, Event, Search

__all__ = [
    "CLAIMABLE",
    "COMMANDS",
    "FINISHED_STATUSES",
    "NOTABLE",
    "PHASES",
    "RESULT_STATUSES",
    "ROLES",
    "SEARCH_STATUSES",
    "TRIAL_STATUSES",
    "Architecture",
    "Artifact",
    "AuditEntry",
    "Base",
    "Dataset",
    "Delivery",
    "Epoch",
    "Evaluation",
    "Event",
    "Fire",
    "IdempotencyKey",
    "JsonObject",
    "Node",
    "Schedule",
    "Search",
    "Setting",
    "SiteCost",
    "Token",
    "Trial",
]
