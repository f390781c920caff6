// Copyright (c) 2026, the k8s_dr founders
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// kms_plugin SOCKET KEYS   is a plugin of KMS v2 that serves at SOCKET with the keys in the directory KEYS.
//
// A key is a file of 32 bytes, and its name is the ID of the key. The last name encrypts. Each is read when it is needed, so that keys can be added and
// lost while the plugin runs. Kubernetes' own library does all but the encryption.
package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"k8s.io/kms/pkg/service"
)

type plugin struct{ keys string }

// The names come sorted.
func (p plugin) newest() (string, error) {
	found, err := os.ReadDir(p.keys)
	if err != nil {
		return "", err
	}
	if len(found) == 0 {
		return "", fmt.Errorf("there is no key in %s", p.keys)
	}
	return found[len(found)-1].Name(), nil
}

func (p plugin) cipher(id string) (cipher.AEAD, error) {
	key, err := os.ReadFile(filepath.Join(p.keys, filepath.Base(id)))
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func (p plugin) Encrypt(_ context.Context, _ string, data []byte) (*service.EncryptResponse, error) {
	id, err := p.newest()
	if err != nil {
		return nil, err
	}
	sealer, err := p.cipher(id)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, sealer.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	return &service.EncryptResponse{Ciphertext: sealer.Seal(nonce, nonce, data, nil), KeyID: id}, nil
}

func (p plugin) Decrypt(_ context.Context, _ string, request *service.DecryptRequest) ([]byte, error) {
	opener, err := p.cipher(request.KeyID)
	if err != nil {
		return nil, err
	}
	size := opener.NonceSize()
	if len(request.Ciphertext) < size {
		return nil, fmt.Errorf("the ciphertext has %d bytes", len(request.Ciphertext))
	}
	return opener.Open(nil, request.Ciphertext[:size], request.Ciphertext[size:], nil)
}

func (p plugin) Status(context.Context) (*service.StatusResponse, error) {
	id, err := p.newest()
	if err != nil {
		return nil, err
	}
	return &service.StatusResponse{Version: "v2", Healthz: "ok", KeyID: id}, nil
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("give the path of the socket, and the directory of the keys")
	}
	// that of a plugin that was killed
	if err := os.Remove(os.Args[1]); err != nil && !os.IsNotExist(err) {
		log.Fatal(err)
	}
	log.Fatal(service.NewGRPCService(os.Args[1], 5*time.Second, plugin{os.Args[2]}).ListenAndServe())
}
