"""The comparison with Flower: ``comparison`` runs here, the rest in an environment of its own."""
