"""The doctor: finds what is wrong with a data set, before a model learns from it."""

from maskrcnn.doctor.diagnosis import Diagnosis, examine
from maskrcnn.doctor.findings import KINDS, Finding
from maskrcnn.doctor.report import report
from maskrcnn.doctor.statistics import statistics

__all__ = ["KINDS", "Diagnosis", "Finding", "examine", "report", "statistics"]
