"""Can this number be believed?  Checks of a model and of what attacks found."""
