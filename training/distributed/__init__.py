"""Training in many processes: process groups, collectives, sharded layers."""
