"""Following many jobs: polling within the quota, outcomes, findings, checkpoints."""
