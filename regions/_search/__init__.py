"""Which balls may overlap: candidates, of which none is missed."""
