"""The simulated world: scenarios, bundled worlds, tool simulator, rollouts."""
