"""Training hooks for any built Keras model: adversarial training and the other ways to fine-tune."""
