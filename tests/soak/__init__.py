"""Long randomised series: thousands of schedules of the simulator, and real processes that are killed by hundreds.

``python -m tests.soak --help`` says how to run them; `tests.soak.series` is what a series is. The faults of a trial
are a function of the seed and the trial's number; at which instruction they hit a real process is not.
"""
