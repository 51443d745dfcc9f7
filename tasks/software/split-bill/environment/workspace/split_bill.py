"""Splits a bill among people, to the cent."""


def split(total_cents: int, people: int) -> list[int]:
    """What each of `people` persons pays, in cents.

    Raises ValueError if nobody is there to pay, or if the total is negative.
    """
    if people < 1:
        raise ValueError(f"people must be at least 1, got {people}")
    if total_cents < 0:
        raise ValueError(f"total_cents must not be negative, got {total_cents}")
    return [total_cents // people] * people
