"""What a user could do instead of RL with the same negatives and the same reward: arms of the evaluation."""
