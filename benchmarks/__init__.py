"""Speed, as ratios inside one run: `python -m benchmarks` or `python -m benchmarks.NAME`."""
