"""Why a question to an endpoint has no answer. Apart from its client, which takes a second to import."""


class EndpointError(RuntimeError):
    """The endpoint gave no usable answer: which one, why."""


class LimitReached(RuntimeError):
    """What the settings allow to spend at this endpoint is spent; nothing was asked."""
