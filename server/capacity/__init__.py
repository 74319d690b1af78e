"""What a load needs: from users or rates to machines, settings and a monthly price. Asks no running server."""
