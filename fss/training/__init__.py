"""Training with Lightning: few-shot and base learner, schedules, the run folder."""
