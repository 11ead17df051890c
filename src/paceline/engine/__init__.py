"""The step loop and all that it turns: requests, trees, verification, and the ports of target, drafter and pacer."""
