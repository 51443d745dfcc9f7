"""`trunkline bench verifier`: what verdicts on software tasks cost, what they accept, what flakes; usual verifiers beside ours."""
