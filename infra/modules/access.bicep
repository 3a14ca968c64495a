metadata description = 'The custom role in one subscription, given to the app there'

targetScope = 'subscription'

@description('Object id of the app\'s identity: the output IDENTITY_PRINCIPAL_ID of main.bicep.')
param principalId string

// actions.json says which call of the app needs which action.
var actions = objectKeys(loadJsonContent('../actions.json'))

resource role 'Microsoft.Authorization/roleDefinitions@2022-04-01' = {
  name: guid(subscription().id, 'aks-kubelet-guard')
  properties: {
    // A role's name is unique in its tenant.
    roleName: 'AKS Kubelet Guard (${subscription().subscriptionId})'
    description: 'Finds AKS clusters and their nodes, and runs commands on the nodes, as root.'
    type: 'CustomRole'
    permissions: [
      {
        actions: actions
        notActions: []
      }
    ]
    assignableScopes: [
      subscription().id
    ]
  }
}

resource assignment 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(subscription().id, principalId, role.id)
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: role.id
  }
}
