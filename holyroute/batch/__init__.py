"""Many calls as one job: bounded, resumable, priced before it runs."""
