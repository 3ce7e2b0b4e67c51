"""What every room uses: files, devices, processes, errors, fingerprints."""
