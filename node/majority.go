package node

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/millrace/millrace/coordinator"
	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/storage"
)

// RecoverMajority makes the stopped node of a data folder the only voter of its cluster, for an operator who knows that
// most of the voters are lost for good. Without unsafe it only tells what it would go on from. Invalid: the folder holds no
// member of a cluster. Conflict with LOCKED: its node is running.
func RecoverMajority(dataDir string, log *slog.Logger, unsafe bool) (out *coordinator.LostMajority, err error) {
	dir := filepath.Join(dataDir, "log")
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Invalid, "%s isn't the data folder of a node", dataDir)
	}
	options := storage.DefaultOptions()
	options.Logger = log
	store, err := storage.OpenLog(dir, options)
	if err != nil {
		return nil, err
	}
	defer func() {
		if cerr := store.Close(); err == nil {
			err = cerr
		}
	}()
	if unsafe {
		return coordinator.ForceMajority(store, log)
	}
	return coordinator.InspectMajority(store, log)
}
