"""A report of jobs for people: one HTML page with all that it needs (extra ``report``)."""

from ci_live_audit.report.page import render

__all__ = ["render"]
