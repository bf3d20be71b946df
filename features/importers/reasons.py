"""Why the importers drop a row, where several of them do for the same reason."""

LATER = "later than now + events.max_ahead_s"
BACK = "quantity below 0"
