"""What can go wrong in training, each with a message for the person who started it."""


class TrainingFailed(RuntimeError):
    """A run was refused, could not start or go on, or could not be saved."""


class JobRefused(TrainingFailed):
    """A job or schedule asks for what cannot be done: says which option, and what to write instead."""
