"""What every scenario needs: launching, statistics, process figures, targets."""
