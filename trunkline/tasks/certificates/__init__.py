"""Certificates: what shows that a reward is earned, for tasksets and for single tasks; their store; and what a run asks of them."""
