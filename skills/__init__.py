"""Skills: discovery objectives, latent priors, the frozen skill and the library."""
