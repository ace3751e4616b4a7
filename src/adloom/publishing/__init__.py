"""What leaves the house: plans for the shop's ad server."""
