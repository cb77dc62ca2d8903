"""Floor 1, pure: what becomes of a finished exchange. Access log, request records, metrics."""
