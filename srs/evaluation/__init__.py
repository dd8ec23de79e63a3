"""What votes prove: certificates, regions, and figures of merit for every rule."""
