// Copies one image between an OCI layout and a registry with oras-go, the library that the oras program is made of.
//
//	oras-copy push|pull LAYOUT TAG HOST/PATH:TAG CONFIG     CONFIG: docker's file with the login
//
// For benchmarks/oci.py. Debian has the library (golang-oras-oras-go-dev) and no oras program; SSL_CERT_FILE names the CA.
package main

import (
	"context"
	"log"
	"os"

	"oras.land/oras-go/pkg/content"
	"oras.land/oras-go/pkg/oras"
)

func main() {
	if len(os.Args) != 6 {
		log.Fatal("usage: oras-copy push|pull LAYOUT TAG HOST/PATH:TAG CONFIG")
	}
	act, folder, tag, place, config := os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]
	layout, err := content.NewOCI(folder)
	if err != nil {
		log.Fatal(err)
	}
	registry, err := content.NewRegistry(content.RegistryOptions{Configs: []string{config}})
	if err != nil {
		log.Fatal(err)
	}
	if act == "push" {
		_, err = oras.Copy(context.Background(), layout, tag, registry, place)
	} else {
		_, err = oras.Copy(context.Background(), registry, place, layout, tag)
		if err == nil {
			err = layout.SaveIndex()
		}
	}
	if err != nil {
		log.Fatal(err)
	}
}
