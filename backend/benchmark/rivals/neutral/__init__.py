"""A suite that says nothing of how its database becomes clean, and the models that it is about."""
