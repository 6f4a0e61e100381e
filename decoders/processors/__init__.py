"""What changes the model's scores before a token is chosen: one file a method, or a few that belong together."""
