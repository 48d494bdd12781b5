"""What objectives learn from: rollouts, rewards, pairs."""
