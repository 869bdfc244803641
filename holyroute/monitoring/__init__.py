"""What happened, added up: health, alerts, and observers for other systems."""
