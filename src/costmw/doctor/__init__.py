"""What is wrong in a set-up, and how to mend it: `costmw doctor`, or `examine(...)`."""

from costmw.doctor.examination import examine, examine_target
from costmw.doctor.finding import Finding, Level, as_json, as_text

__all__ = ["Finding", "Level", "as_json", "as_text", "examine", "examine_target"]
