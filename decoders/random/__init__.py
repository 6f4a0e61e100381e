"""Random draws: torch's streams without torch, and the samplers that draw from them."""
