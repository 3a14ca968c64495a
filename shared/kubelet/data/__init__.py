"""What each minor's kubelet knows, one file a minor (1.NN.json), made by tools/minor.sh from its published modules."""
