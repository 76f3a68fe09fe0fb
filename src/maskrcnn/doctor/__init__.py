"""The doctor: finds what is wrong with a data set, before a model learns from it."""

from maskrcnn.doctor.diagnosis import Diagnosis, examine
from maskrcnn.doctor.findings import KINDS, Finding
from maskrcnn.doctor.mistakes import Mistake, likely_mistakes
from maskrcnn.doctor.repair import repaired
from maskrcnn.doctor.report import mistakes_section, report
from maskrcnn.doctor.statistics import statistics

__all__ = [
    "KINDS",
    "Diagnosis",
    "Finding",
    "Mistake",
    "examine",
    "likely_mistakes",
    "mistakes_section",
    "repaired",
    "report",
    "statistics",
]
