"""What `dlmkit bench` runs: cases, measurements, the early-exit comparison, reports."""
