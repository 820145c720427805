"""Policy gradients: sampling responses, advantages, the learner."""
