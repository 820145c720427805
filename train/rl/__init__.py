"""Learning from reward: rollouts, advantages, policy gradients, preferences, search. Pure functions on arrays, and the learners."""
