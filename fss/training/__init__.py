"""Training with Lightning: few-shot learner, base learner, schedules and run folder."""
