"""Reports of evaluations, from their JSON alone: Markdown, one HTML page, plots."""
