"""Policy gradients: drawing responses, advantages, the learner."""
