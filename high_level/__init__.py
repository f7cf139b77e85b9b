"""Controllers over frozen skills."""
