"""Questions about real places whose facts are re-drawn per instance, answered by lookups. Owns no agent and no model."""
