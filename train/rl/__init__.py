"""Learning from reward: rollouts, rewards, advantages, policy gradients, preferences, search. Pure functions on arrays, plus the learners."""
